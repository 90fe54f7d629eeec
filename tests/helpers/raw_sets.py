"""Folders in the layouts of the public sets, tiny and with the oddities of the real ones; all in them is invented."""

import gzip
import io
import json
import tarfile
import zipfile

import numpy as np
from PIL import Image


def write_film(path, seed=0, size=(24, 20), form=None):
    """A picture of grey noise, `size` wide and high."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 255, size[::-1], np.uint8)
    Image.fromarray(pixels).save(path, format=form)
    return path


def write_table(path, text, gzipped=False, bom=False, windows=False):
    """A table given as text whose lines may be indented."""
    lines = [line.strip() for line in text.strip("\n").splitlines()]
    content = ("\ufeff" * bom + ("\r\n" if windows else "\n").join([*lines, ""])).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(content, mtime=0) if gzipped else content)
    return path


# --- NIH ChestX-ray14 ---------------------------------------------------------------------------------------------


def write_nih(folder, old=False):
    """Two patients of three and one films; `old` is the first version's header, ages and folders of films."""
    names = "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position"
    rest = ",OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]"
    header = names.replace(" ", "_") + rest + "," if old else names + rest
    age, end = ("058Y", ",") if old else ("58", "")
    rows = [
        f"00000013_001.png,Effusion|Mass,1,13,{age},M,AP,2500,2048,0.1,0.1{end}",
        f"00000013_000.png,No Finding,0,13,{age},M,PA,2500,2048,0.1,0.1{end}",
        f"00000013_002.png,Edema,2,13,{age},M,,2500,2048,0.1,0.1{end}",  # the file is missing
        f"00000007_000.png,Infiltration,0,7,{age},F,PA,2500,2048,0.1,0.1{end}",
        f"00000008_000.png,Rib Fracture,0,8,{age},F,PA,2500,2048,0.1,0.1{end}",  # no label of the set
        f"00000009_000.png,Hernia,0,x,{age},F,PA,2500,2048,0.1,0.1{end}",
    ]
    table = "Data_Entry_2017.csv" if old else "Data_Entry_2017_v2020.csv"
    write_table(folder / table, "\n".join([header, *rows]), windows=old, bom=old)
    write_table(
        folder / "BBox_List_2017.csv",
        """Image Index,Finding Label,Bbox [x,y,w,h],,,
        00000007_000.png,Infiltrate,100.5,200,300,400,,,
        00000007_000.png,Infiltrate,600,200,50,60
        00000013_001.png,Mass,10,20,0,60""",
    )
    write_table(folder / "train_val_list.txt", "00000013_000.png\n00000013_001.png\n00000013_002.png", windows=old)
    write_table(folder / "test_list.txt", "00000007_000.png\n00000008_000.png\n00000009_000.png", bom=old)
    places = ("images_001/images", "images_002/images") if old else ("images", "images")
    for i, name in enumerate(("00000007_000", "00000008_000", "00000009_000", "00000013_000", "00000013_001")):
        write_film(folder / places[i % 2] / f"{name}.png", seed=i)
    return folder


# --- Open-i -------------------------------------------------------------------------------------------------------


def _openi_xml(number, findings, impression, headings, images):
    texts = {"COMPARISON": "None.", "INDICATION": "XXXX-year-old with chest pain", "FINDINGS": findings}
    parts = [f'<AbstractText Label="{name}">{text}</AbstractText>' for name, text in texts.items()]
    parts.append(f'<AbstractText Label="IMPRESSION">{impression}</AbstractText>')
    shown = "".join(f'<parentImage id="CXR{number}_{image}"><caption>Xray</caption></parentImage>' for image in images)
    majors = "".join(f"<major>{heading}</major>" for heading in headings)
    return (
        f'<?xml version="1.0" encoding="utf-8"?><eCitation><uId id="CXR{number}"/><MedlineCitation><Article><Abstract>'
        f"{''.join(parts)}</Abstract></Article></MedlineCitation><MeSH>{majors}</MeSH>{shown}</eCitation>"
    )


OPENI_XML = {
    "10": _openi_xml(10, "The XXXX is clear.", "Normal chest.", ["normal"], ["10_IM-0002-1001", "10_IM-0002-2001"]),
    "2": _openi_xml(2, "", "Left basilar atelectasis.", ["Pulmonary Atelectasis/base/left/mild"], ["2_IM-0652-1001"]),
    "3": _openi_xml(3, "", "", ["no indexing"], []),  # nothing to use
    "4": _openi_xml(4, "Stable cardiomegaly.", "", ["Cardiomegaly", "Opacity/lung"], []),  # text only
    "5": _openi_xml(5, "Broken off", "", [], [])[:200],
}


def write_openi(folder, archived=False, films=True):
    """Five reports; of the three films that they name one is missing."""
    if archived:
        folder.mkdir(parents=True, exist_ok=True)
        with tarfile.open(folder / "NLMCXR_reports.tgz", "w:gz") as archive:
            for name, text in OPENI_XML.items():
                member = tarfile.TarInfo(f"ecgen-radiology/{name}.xml")
                member.size = len(text.encode())
                archive.addfile(member, io.BytesIO(text.encode()))
    else:
        for name, text in OPENI_XML.items():
            write_table(folder / "ecgen-radiology" / f"{name}.xml", text)
    if films:
        write_film(folder / "NLMCXR_png/CXR10_10_IM-0002-1001.png", 1)
        write_film(folder / "NLMCXR_png/CXR2_2_IM-0652-1001.png", 2)
    return folder


def write_openi_kaggle(folder):
    write_table(
        folder / "indiana_reports.csv",
        """uid,MeSH,Problems,image,indication,comparison,findings,impression
        10,normal,normal,Xray,XXXX-year-old with chest pain,None.,The XXXX is clear.,Normal chest.
        2,Pulmonary Atelectasis/base/left/mild;Opacity/lung,x,Xray,Pain,,"The heart, as before, is large.",Atelectasis.
        3,normal,normal,Xray,Pain,,,""",
    )
    write_table(
        folder / "indiana_projections.csv",
        """uid,filename,projection
        10,10_IM-0002-1001.dcm.png,Frontal
        10,10_IM-0002-2001.dcm.png,Lateral
        2,2_IM-0652-1001.dcm.png,Lateral""",
    )
    for i, name in enumerate(("10_IM-0002-1001", "10_IM-0002-2001", "2_IM-0652-1001")):
        write_film(folder / f"images/images_normalized/{name}.dcm.png", i)
    return folder


# --- MIMIC-CXR ----------------------------------------------------------------------------------------------------

CHEXPERT_HEADER = (
    "Atelectasis,Cardiomegaly,Consolidation,Edema,Enlarged Cardiomediastinum,Fracture,Lung Lesion,Lung Opacity,"
    "No Finding,Pleural Effusion,Pleural Other,Pneumonia,Pneumothorax,Support Devices"
)
MIMIC_REPORTS = {
    # an addendum above a line, a title in a header's place, two FINDINGS (the first empty), a numbered impression
    "p10/p10000001/s50000009": """ ADDENDUM: Dr. ___ was called.
 ______________________________________________________________________________
                                 FINAL REPORT
 CHEST, PA AND LATERAL:

 INDICATION:  ___ year old man with cough.

 FINDINGS:

 FINDINGS:  There is a small left pleural
 effusion.

 IMPRESSION:

 1.  Small left pleural effusion.
 2.  No pneumothorax.
""",
    "p10/p10000001/s50000002": """WET READ: ___ ___ 9:41 PM
  No pneumothorax.
 ______________________________________________________________________________
                                 FINAL REPORT
 HISTORY:  Fever.

 The lungs are clear.  Compared with ___, no change.
""",
    "p11/p11000003/s53000003": "                                 FINAL REPORT\n ___\n",
    "p11/p11000003/s53000004": " FINAL REPORT\r\n IMPRESSION:  Edema.\r\n",  # text only
}


def write_mimic_cxr(folder, version="2.1.0", archived=True, gzipped=True):
    """Two patients. Studies by time and not by number; one film with a blank view, one without any; one missing; a
    study without a row of labels, one of blanks, one without film and report."""
    jpg, text = folder / f"mimic-cxr-jpg/{version}", folder / f"mimic-cxr/{version}"
    end = ".csv.gz" if gzipped else ".csv"
    films = [
        ("aa", 10000001, 50000009, "PA", 21800506, "213014.531", "postero-anterior", "CHEST (PA AND LAT)"),
        ("ab", 10000001, 50000009, "LATERAL", 21800701, "213014.531", "lateral", "CHEST (PA AND LAT)"),
        ("ac", 10000001, 50000002, "", 21800626, "93014.0", "antero-posterior", "CHEST (PORTABLE AP)"),
        ("ad", 10000001, 50000001, "", 21800626, "170000.0", "", "CHEST (PORTABLE AP)"),
        ("ba", 11000003, 53000003, "", 21190101, "70000.0", "", "CHEST (PA AND LAT)"),
        ("bb", 11000003, 53000003, "LL", 21190101, "65959.0", "left lateral", "CHEST (PA AND LAT)"),  # missing file
        ("bc", 11000003, 53000005, "AP", 21190102, "0.0", "", "CHEST"),  # missing file
    ]
    columns = (
        "dicom_id,subject_id,study_id,PerformedProcedureStepDescription,ViewPosition,Rows,Columns,StudyDate,StudyTime,"
        "ProcedureCodeSequence_CodeMeaning,ViewCodeSequence_CodeMeaning,PatientOrientationCodeSequence_CodeMeaning"
    )
    rows = [
        f"{film},{patient},{study},{step},{view},20,24,{date},{time},x,{code},Erect"
        for film, patient, study, view, date, time, code, step in films
    ]
    write_table(jpg / f"mimic-cxr-2.0.0-metadata{end}", "\n".join([columns, *rows]), gzipped)
    split = ["dicom_id,study_id,subject_id,split"]
    split += [f"{film},{s},{p},{'validate' if p == 11000003 else 'train'}" for film, p, s, *_ in films]
    write_table(jpg / f"mimic-cxr-2.0.0-split{end}", "\n".join(split), gzipped, windows=True)
    for name in ("chexpert", "negbio"):
        write_table(
            jpg / f"mimic-cxr-2.0.0-{name}{end}",
            f"""subject_id,study_id,{CHEXPERT_HEADER}
            10000001,50000009,,,,,,,,,,1.0,,-1.0,0.0,
            10000001,50000002,,,,,,,,,1.0,,,,,2.0
            11000003,53000003,,,,,,,,,,,,,,""",
            gzipped,
            bom=True,
        )
    if version == "2.1.0":
        header = CHEXPERT_HEADER.replace("Lung Opacity", "Airspace Opacity")
        write_table(jpg / "mimic-cxr-2.1.0-test-set-labeled.csv", f"study_id,{header}\n53000003,,,,,,,,1.0,,,,,,0.0")
    for i, (film, patient, study, *_) in enumerate(films[:5]):
        write_film(jpg / f"files/p{patient // 10**6}/p{patient}/s{study}/{film}.jpg", i)
    if archived:
        text.mkdir(parents=True)
        with zipfile.ZipFile(text / "mimic-cxr-reports.zip", "w") as archive:
            for name, report in MIMIC_REPORTS.items():
                archive.writestr(f"files/{name}.txt", report)
    else:
        listed = [f"{name.split('/')[1][1:]},{name.split('/')[2][1:]},files/{name}.txt" for name in MIMIC_REPORTS]
        write_table(text / f"cxr-study-list{end}", "\n".join(["subject_id,study_id,path", *listed]), gzipped)
        for name, report in MIMIC_REPORTS.items():
            path = text / f"files/{name}.txt"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(report.encode())
    return folder


# --- MS-CXR-T -----------------------------------------------------------------------------------------------------


def write_ms_cxr_t(folder):
    """Two pairs of MIMIC films, one with a study number that is none; film ids are paths without an ending."""
    write_mimic_cxr(folder)
    findings = ("consolidation", "edema", "pleural_effusion", "pneumonia", "pneumothorax")
    columns = ",".join(f"{finding}_progression,{finding}_label_quality" for finding in findings)
    path = "p10/p10000001"
    write_table(
        folder / "ms-cxr-t/1.0.0/MS_CXR_T_temporal_image_classification_v1.0.0.csv",
        f"""subject_id,study_id,dicom_id,previous_study_id,previous_dicom_id,{columns}
        10000001,50000002,{path}/s50000002/ac,50000009,{path}/s50000009/aa,,,stable,one_expert,improving,multiple_experts,,,,
        10000001,x,{path}/s50000001/ad,50000002,{path}/s50000002/ac,,,stable,one_expert,,,,,,""",
    )
    return folder


# --- CheXpert and CheXpert Plus -----------------------------------------------------------------------------------

CHEXPERT_COLUMNS = (
    "No Finding,Enlarged Cardiomediastinum,Cardiomegaly,Lung Opacity,Lung Lesion,Edema,Consolidation,Pneumonia,"
    "Atelectasis,Pneumothorax,Pleural Effusion,Pleural Other,Fracture,Support Devices"
)


def write_chexpert(folder, gzipped=False):
    """A study of a frontal and a lateral film, one whose film is missing, one that begins with a lateral film; a table
    of tests that lists studies."""
    root, prefix = folder / "CheXpert-v1.0-small", "CheXpert-v1.0-small/train"
    head = f"Path,Sex,Age,Frontal/Lateral,AP/PA,{CHEXPERT_COLUMNS}"
    end = ".gz" if gzipped else ""
    write_table(
        root / f"train.csv{end}",
        f"""{head}
        {prefix}/patient00001/study1/view1_frontal.jpg,Female,68,Frontal,AP,,,,1.0,,,-1.0,,,0.0,,,,
        {prefix}/patient00001/study1/view2_lateral.jpg,Female,68,Lateral,,,,,1.0,,,-1.0,,,0.0,,,,
        {prefix}/patient00002/study2/view1_frontal.jpg,Male,0,Frontal,PA,1.0,,,,,,,,,,,,,
        {prefix}/patient00002/study10/view1_lateral.jpg,Unknown,90,Lateral,,,,,,,,,,,,,,,
        not/a/path.jpg,Unknown,90,Lateral,,,,,,,,,,,,,,,""",
        gzipped,
        windows=True,
    )
    write_table(
        root / f"valid.csv{end}",
        f"{head}\n{prefix[:-5]}valid/patient64541/study1/view1_frontal.jpg,Male,73,Frontal,AP" + ",0.0" * 13 + ",1.0",
        gzipped,
    )
    study = "CheXpert-v1.0/test/patient64741/study1"
    write_table(root / "groundtruth.csv", f"Study,{CHEXPERT_COLUMNS}\n{study}{',0' * 14}")
    for i, name in enumerate(
        (
            "train/patient00001/study1/view1_frontal",
            "train/patient00001/study1/view2_lateral",
            "train/patient00002/study10/view1_lateral",
            "valid/patient64541/study1/view1_frontal",
            "test/patient64741/study1/view1_frontal",
            "test/patient64741/study1/view2_lateral",
        )
    ):
        write_film(root / f"{name}.jpg", i)
    return folder


def write_chexpert_plus(folder):
    """Films of one study with two texts, cells of several lines, impressions in capitals, a study without films."""
    sections = (
        "section_narrative,section_clinical_history,section_history,section_comparison,section_technique,"
        "section_procedure_comments,section_findings,section_impression,section_end_of_impression,section_summary,"
        "section_accession_number"
    )
    lines = [
        f"path_to_image,path_to_dcm,frontal_lateral,ap_pa,deid_patient_id,patient_report_date_order,report,{sections},"
        "age,sex,race,ethnicity,interpreter_needed,insurance_type,recent_bmi,deceased,split",
        'train/patient00005/study2/view1_frontal.jpg,x,Frontal,PA,patient00005,2,"NARRATIVE:',
        'CHEST 1/2/2001 IMPRESSION: 1. EDEMA.",CHEST,nan,,,,,,"',
        '1. EDEMA.",,,,68,Male,,,,,,No,train',
        'train/patient00005/study2/view2_lateral.jpg,x,Lateral,,patient00005,2,"NARRATIVE:',
        'CHEST 3/4/2005 IMPRESSION: 1. EDEMA.",CHEST,nan,,,,,,"',
        '1. EDEMA.",,,,68,Male,,,,,,No,train',
        "train/patient00005/study1/view1_frontal.jpg,x,Frontal,AP,patient00005,1,FINDINGS: Clear lungs.,,,,,,,"
        "Clear lungs.,,,,,68,Male,,,,,,No,train",
        "valid/patient00006/study1/view1_frontal.jpg,x,Frontal,AP,patient00006,1,,,,,,,,,,,,,68,Male,,,,,,No,valid",
    ]
    write_table(folder / "df_chexpert_plus_240401.csv", "\n".join(lines))
    blank = ", ".join(f'"{name}": null' for name in CHEXPERT_COLUMNS.split(",") if name != "Edema")
    for part in ("impression", "findings", "report"):
        rows = [
            f'{{"path_to_image": "train/patient00005/study2/view1_frontal.jpg", {blank}, "Edema": 1.0}}',
            f'{{"path_to_image": "train/patient00005/study2/view2_lateral.jpg", {blank}, "Edema": -1.0}}',
            f'{{"path_to_image": "train/patient00005/study1/view1_frontal.jpg", {blank}, "Edema": null}}',
            '{"path_to_image": ',
        ]
        write_table(folder / f"chexbert_labels/{part}_fixed.json", "\n".join(rows))
    write_film(folder / "PNG/train/patient00005/study2/view1_frontal.png", 1)
    write_film(folder / "PNG/train/patient00005/study2/view2_lateral.png", 2)
    return folder


# --- RSNA and SIIM ------------------------------------------------------------------------------------------------


def write_rsna(folder, mapped=True):
    """A film with two boxes, a normal one, one otherwise abnormal whose file is missing, one without labels."""
    write_table(
        folder / "stage_2_train_labels.csv",
        """patientId,x,y,width,height,Target
        aaaa-1,264.0,152.0,213.0,379.0,1
        aaaa-1,562.0,152.5,256.0,453.0,1
        bbbb-2,,,,,0
        cccc-3,,,,,0""",
    )
    write_table(
        folder / "stage_2_detailed_class_info.csv",
        """patientId,class
        aaaa-1,Lung Opacity
        aaaa-1,Lung Opacity
        bbbb-2,Normal
        cccc-3,No Lung Opacity / Not Normal""",
    )
    for i, name in enumerate(("train_images/aaaa-1", "train_images/bbbb-2", "test_images/dddd-4")):
        write_film(folder / f"stage_2_{name}.dcm", i, form="PNG")  # what is inside does not matter here
    if mapped:
        pairs = {"aaaa-1": "00000013_001", "bbbb-2": "00000007_000", "dddd-4": "00000013_000"}
        records = ", ".join(f'{{"subset_img_id": "{name}", "img_id": "{film}.png"}}' for name, film in pairs.items())
        write_table(folder / "pneumonia-challenge-dataset-mappings_2018.json", f"[{records}, 3]")
        write_table(folder / "train_val_list.txt", "00000013_000.png\n00000013_001.png")
        write_table(folder / "test_list.txt", "00000007_000.png")
    return folder


def write_siim(folder, stage=1):
    """Two regions of one film, a film without, one without a row, one without a file, a mask that is none."""
    space = " " if stage == 1 else ""
    table = "train-rle.csv" if stage == 1 else "stage_2_train.csv"
    lines = [
        f"ImageId,{space}EncodedPixels",
        f"1.2.a,{space}2058 3 1021 3",  # columns 2 and 3, rows 10 to 12
        f"1.2.a,{space}5 1",
        f"1.2.b,{space}-1",
        f"1.2.c,{space}-1",
        f"1.2.d,{space}1 2 3",
    ]
    write_table(folder / table, "\n".join(lines))
    for i, name in enumerate(("1.2.a", "1.2.b", "1.2.d", "1.2.e")):
        place = f"dicom-images-train/1.{i}/1.{i}.1/{name}.dcm" if stage == 1 else f"stage_2_images/{name}.dcm"
        write_film(folder / place, i, form="PNG")
    return folder


# --- VinDr-CXR, PadChest, ReXGradient -----------------------------------------------------------------------------


def write_vindr(folder, kaggle=False):
    """A film that two readers boxed and named, one without a finding, one that is missing."""
    rows = [
        ("aa", "R8", "Cardiomegaly", "10,20,110,220"),
        ("aa", "R9", "Nodule/Mass", "1.5,2,3.5,4"),
        ("aa", "R9", "Nodule/Mass", "5,5,5,9"),
        ("bb", "R8", "No finding", ",,,"),
        ("cc", "R8", "No finding", ",,,"),
    ]
    if kaggle:
        lines = ["image_id,class_name,class_id,rad_id,x_min,y_min,x_max,y_max"]
        lines += [f"{film},{name},3,{reader},{box}" for film, reader, name, box in rows]
        write_table(folder / "train.csv", "\n".join(lines))
    else:
        lines = ["image_id,rad_id,class_name,x_min,y_min,x_max,y_max"]
        lines += [f"{film},{reader},{name},{box}" for film, reader, name, box in rows]
        write_table(folder / "annotations/annotations_train.csv", "\n".join(lines))
        write_table(
            folder / "annotations/image_labels_train.csv",
            """image_id,rad_id,Cardiomegaly,Nodule/Mass,Pneumonia,No finding
            aa,R9,0,1,1,0
            aa,R8,1,0,0,0
            bb,R8,0,0,0,1""",
        )
        columns = "image_id,class_name,x_min,y_min,x_max,y_max"
        write_table(folder / "annotations/annotations_test.csv", f"{columns}\ndd,No finding,,,,")
        write_table(
            folder / "annotations/image_labels_test.csv",
            "image_id,Cardiomegaly,Nodule/Mass,Pneumonia,No finding\ndd,0,0,0,1",
        )
        write_film(folder / "test/dd.dicom", 3, form="PNG")
    for i, film in enumerate(("aa", "bb")):
        write_film(folder / f"train/{film}.{'dicom' if not kaggle else 'png'}", i, form="PNG")
    return folder


def write_padchest(folder):
    """Studies out of order, labels as text of a list with blanks, one that is none, a film excluded, one missing."""
    columns = "ImageID,ImageDir,StudyDate_DICOM,StudyID,PatientID,Projection,Report,MethodLabel,Labels"
    write_table(
        folder / "PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv.gz",
        f""",{columns}
        0,a.png,0,20150303,s2,p1,PA,cardiomegali ,Physician,"['cardiomegaly', ' pleural effusion ', '', 'unchanged']"
        1,b.png,0,20150303,s2,p1,L,cardiomegali ,Physician,"['cardiomegaly']"
        2,c.png,3,20140101,s1,p1,AP_horizontal,normal ,RNN_model,['normal']
        3,d.png,3,20140102,s3,p1,EXCLUDE,,RNN_model,['normal']
        4,e.png,0,20160101,s4,p2,COSTAL,fractur,Physician,[fracture
        5,f.png,0,20160101,s5,p3,PA,x,Physician,""",
        gzipped=True,
    )
    for i, name in enumerate(("0/a", "0/b", "3/c", "3/d", "0/e")):
        write_film(folder / f"{name}.png", i)
    return folder


def write_rexgradient(folder):
    """Sections that are "None", views that are null or too few, a film outside of the set, a study of nothing."""

    def record(patient, study, date, films, views, **sections):
        paths = [f"../deid_png/{patient}/{study}/{film}.png" for film in films]
        texts = {"Indication": "None", "Comparison": "None", "Findings": "None", "Impression": "None", **sections}
        return {
            "PatientID": patient, "AccessionNumber": study, "StudyDate": date, "ImagePath": paths,
            "ImageViewPosition": views, **texts,
        }  # fmt: skip

    train = {
        "x": record("P1", "A2", 20200202, ["f1", "f2"], ["PA", None], Findings="Clear.", Impression="Normal."),
        "y": record("P1", "A1", 20200101, ["f3"], [], Impression="Edema."),
        "z": record("P2", "A3", 20200101, ["missing"], ["AP"]),
        "w": {"PatientID": "P3"},
    }
    (folder / "metadata").mkdir(parents=True)
    (folder / "metadata/train_metadata_view_position.json").write_text(json.dumps(train))
    valid = [record("P4", "A4", None, ["../../../../outside"], ["AP"], Findings="Effusion.")]
    (folder / "metadata/valid_metadata.json").write_text(json.dumps(valid))
    write_film(folder.parent / "outside.png")
    for i, name in enumerate(("P1/A2/f1", "P1/A2/f2", "P1/A1/f3")):
        write_film(folder / f"deid_png/{name}.png", i)
    return folder
